include:
  - base.ssh
  - base.users
  - base.containers

/etc/motd:
  file.managed:
    - source: salt://base/motd.jinja
    - template: jinja
    - mode: '0644'
