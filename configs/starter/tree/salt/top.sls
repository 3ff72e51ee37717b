# Which node gets which states. Roles come from bramble.yaml, so this works, too:
#   'roles:worker':
#     - match: grain
#     - worker
base:
  '*':
    - base
