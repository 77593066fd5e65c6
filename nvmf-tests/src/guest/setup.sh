# First process of a lab guest once the overlaid root is there, before the agent: what a distribution's boot would have done.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C TERM=${TERM:-dumb}
dmesg -n 1
ln -sfn /proc/self/fd /dev/fd
ln -sfn fd/0 /dev/stdin; ln -sfn fd/1 /dev/stdout; ln -sfn fd/2 /dev/stderr
mkdir -p /usr/lib/modules
ln -sfn "$(cat /run/lab/modules)" "/usr/lib/modules/$(uname -r)"
hostname guest
echo "127.0.0.1 localhost guest" > /etc/hosts
# Every guest is another host to the target, whatever this machine's own identity is.
mkdir -p /etc/nvme
uuid=$(cat /proc/sys/kernel/random/uuid)
echo "nqn.2014-08.org.nvmexpress:uuid:$uuid" > /etc/nvme/hostnqn
echo "$uuid" > /etc/nvme/hostid
rm -f /etc/nvme/config.json /etc/nvme/discovery.conf
ip link set lo up
if [ "$(cat /run/lab/network)" = user ]; then
  modprobe virtio_net
  for n in $(seq 100); do [ -e /sys/class/net/eth0 ] && break; sleep 0.1; done
  ip address add 10.0.2.15/24 dev eth0
  ip link set eth0 up
  ip route add default via 10.0.2.2
fi
[ "$(cat /run/lab/drives)" = 0 ] || modprobe virtio_blk
ulimit -l unlimited
ulimit -n 65536
cd /root
if [ "$(cat /run/lab/mode)" = shell ]; then
  echo "A Linux $(uname -r) guest; this machine's root is here, writes vanish. Leave with: exit"
  setsid --ctty --wait bash -i < /dev/console > /dev/console 2>&1
else
  "$(cat /run/lab/agent)" agent
fi
echo "afs-lab: the end"
echo o > /proc/sysrq-trigger
sleep 60
