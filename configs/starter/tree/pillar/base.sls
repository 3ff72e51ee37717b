# How often the nodes apply their states.
schedule:
  highstate:
    function: state.apply
    minutes: 60

# Data for the states; salt/base/users.sls makes a login of each of these.
users: {}
