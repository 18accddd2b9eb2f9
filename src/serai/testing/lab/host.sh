# Pid 1 of a host, started in the laboratory's mounts with network, mount, uts, ipc and pid namespaces of its own.
# It becomes sshd, which reaps every orphan, so that no other init is needed.
# Arguments: name, address, hardware address, cable, lower directory, sshd, and the directory of an interpreter or "".
set -e
name=$1 address=$2 hardware=$3 cable=$4 lower=$5 sshd=$6 python=$7
cd "/run/hosts/$name"
# A dead host's cable goes away some time after its namespace: without this the new one would meet the old one's name.
ip -n lab link del "$cable" 2>/dev/null || true
ip -batch - <<COMMANDS
link set lo up
link add eth0 address $hardware type veth peer name $cable netns lab
addr add $address/24 dev eth0
link set eth0 up
route add default via 10.77.0.254
COMMANDS
ip -n lab link set "$cable" master br0 up
hostname "$name"
mkdir -p root work
mount -t overlay -o "lowerdir=$lower,upperdir=up,workdir=work" overlay root
cd root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/sshd run/lock
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
if [ -n "$python" ]; then
	mount --bind "$python" opt/python
	mount -o remount,bind,ro opt/python
fi
pivot_root . mnt
cd /
umount -l /mnt
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$sshd" -D -e -f /etc/ssh/sshd_config
