#!/bin/sh
# Managed by rtinfra, role rt_kernel. Run by grub-mkconfig. The last known good entry and the one on trial are read when the
# machine boots, so that they change without grub.cfg.
cat <<'EOF'
if [ -f ${config_directory}/rtinfra.cfg ]; then
  source ${config_directory}/rtinfra.cfg
elif [ -z "${config_directory}" -a -f $prefix/rtinfra.cfg ]; then
  source $prefix/rtinfra.cfg
fi
EOF
