# What container engines ask of the kernel. The memory cgroup is switched on by the command line in bramble.yaml.
fs.inotify.max_user_instances:
  sysctl.present:
    - value: 512
    - config: /etc/sysctl.d/60-containers.conf

fs.inotify.max_user_watches:
  sysctl.present:
    - value: 65536
    - config: /etc/sysctl.d/60-containers.conf

net.ipv4.ip_forward:
  sysctl.present:
    - value: 1
    - config: /etc/sysctl.d/60-containers.conf
