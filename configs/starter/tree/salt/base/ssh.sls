# Keys only. sshd takes the first value that it finds, so the file's name begins with a small number.
/etc/ssh/sshd_config.d/10-base.conf:
  file.managed:
    - contents: |
        PasswordAuthentication no
        KbdInteractiveAuthentication no
        PermitRootLogin no
    - mode: '0644'
    - makedirs: true

ssh:
  service.running:
    - reload: true
    - watch:
      - file: /etc/ssh/sshd_config.d/10-base.conf
