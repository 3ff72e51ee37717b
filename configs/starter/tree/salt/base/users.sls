# A system user for services of your own, and whoever pillar/base.sls names under users.
bramble-work:
  user.present:
    - system: true
    - shell: /usr/sbin/nologin
    - home: /var/lib/bramble-work
    - createhome: true

{% for name, user in salt['pillar.get']('users', {}).items() %}
{{ name }}:
  user.present:
    - fullname: {{ user.get('fullname', name) }}
    - shell: /bin/bash
{% endfor %}
