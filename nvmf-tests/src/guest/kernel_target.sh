# Runs in a guest: the kernel's own NVMe/TCP target on 127.0.0.1, with null_blk behind it. The yardstick for
# measurements, and a known-good target for checking the lab itself.
# Arguments: NQN, port, size in GiB, 1 to keep what is written (0: a device that forgets everything).
set -e
for module in configfs nvme-tcp nvmet nvmet-tcp; do modprobe $module; done
modprobe null_blk nr_devices=1 queue_mode=2 irqmode=0 completion_nsec=0 bs=4096 gb="$3" memory_backed="$4" discard="$4"
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
cd /sys/kernel/config/nvmet
mkdir "subsystems/$1" "subsystems/$1/namespaces/1" ports/1
echo 1 > "subsystems/$1/attr_allow_any_host"
echo -n /dev/nullb0 > "subsystems/$1/namespaces/1/device_path"
echo 1 > "subsystems/$1/namespaces/1/enable"
cd ports/1
echo ipv4 > addr_adrfam
echo tcp > addr_trtype
echo 127.0.0.1 > addr_traddr
echo "$2" > addr_trsvcid
ln -s "/sys/kernel/config/nvmet/subsystems/$1" "subsystems/$1"
