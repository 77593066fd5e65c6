# Runs in a guest: soft RDMA (RoCE v2 by rxe) on interfaces of its own, soft0 … with rxe0 … on them. What is there already stays.
# Arguments: how many devices.
set -e
for n in $(seq 0 $(($1 - 1))); do
  if [ ! -e /sys/class/net/soft$n ]; then
    ip link add soft$n type dummy
    ip address add 10.77.$n.1/24 dev soft$n
    ip -6 address add fd77:$n::1/64 dev soft$n nodad
    ip link set soft$n up
  fi
  rdma link show rxe$n/1 > /dev/null 2>&1 || rdma link add rxe$n type rxe netdev soft$n
done
for n in $(seq 0 $(($1 - 1))); do
  for wait in $(seq 100); do grep -q ACTIVE /sys/class/infiniband/rxe$n/ports/1/state && break; sleep 0.1; done
  grep -q ACTIVE /sys/class/infiniband/rxe$n/ports/1/state
done
