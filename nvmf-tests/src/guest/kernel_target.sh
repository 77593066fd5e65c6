# Runs in a guest: the kernel's own NVMe target, with null_blk behind it. The yardstick for measurements, and a
# known-good target for checking the lab itself.
# Arguments: NQN, size in GiB, 1 to keep what is written (0: a device that forgets everything), then transport, IPv4 address
# and port.
set -e
for module in configfs "nvme-$4" nvmet "nvmet-$4"; do modprobe $module; done
modprobe null_blk nr_devices=1 queue_mode=2 irqmode=0 completion_nsec=0 bs=4096 gb="$2" memory_backed="$3" discard="$3"
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
cd /sys/kernel/config/nvmet
if [ ! -d "subsystems/$1" ]; then
  mkdir "subsystems/$1" "subsystems/$1/namespaces/1"
  echo 1 > "subsystems/$1/attr_allow_any_host"
  echo -n /dev/nullb0 > "subsystems/$1/namespaces/1/device_path"
  echo 1 > "subsystems/$1/namespaces/1/enable"
fi
id=$(($(ls ports | wc -l) + 1))
mkdir ports/$id
cd ports/$id
echo ipv4 > addr_adrfam
echo "$4" > addr_trtype
echo "$5" > addr_traddr
echo "$6" > addr_trsvcid
ln -s "/sys/kernel/config/nvmet/subsystems/$1" "subsystems/$1"
