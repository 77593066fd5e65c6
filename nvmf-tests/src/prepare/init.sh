#!/bin/busybox sh
# First process of a lab guest: mounts the build machine's root, read-only, under a writable overlay, and runs the
# lab's own binary in it. /lab holds what the boot at hand wants to say; see guest/qemu.rs.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do
  insmod "/modules/$module" || echo "afs-lab: cannot load $module"
done < /modules/order
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro hostroot /root || echo "afs-lab: no shared root"
mount -t tmpfs tmpfs /overlay
mkdir /overlay/upper /overlay/work /overlay/root
mount -t overlay -o lowerdir=/root,upperdir=/overlay/upper,workdir=/overlay/work overlay /overlay/root
cd /overlay/root || poweroff -f
for kind in proc sysfs devtmpfs; do
  case $kind in proc) at=proc ;; sysfs) at=sys ;; devtmpfs) at=dev ;; esac
  mount -t $kind $kind $at
done
mkdir -p dev/pts dev/shm
mount -t devpts devpts dev/pts
for at in dev/shm run tmp; do mount -t tmpfs tmpfs $at; done
mkdir -p run/lab
cp /lab/* run/lab/
# Not a mere chroot of a child: the kernel looks for modprobe where its first process is at home.
exec switch_root /overlay/root /bin/bash /run/lab/setup.sh
