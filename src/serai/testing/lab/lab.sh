# Pid 1 of a laboratory, in its own network, mount and pid namespaces. It lives as long as its standard input is open:
# when the process that made the laboratory ends, `cat` ends, and the kernel ends every process of the namespace.
# Arguments: pairs of a host's name and the bytes of its disk.
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/netns /run/hosts
touch /run/netns/lab
mount --bind /proc/self/ns/net /run/netns/lab # a name by which a host can hand over its end of a cable
[ ! -w /proc/sys/net/ipv6/conf/default/disable_ipv6 ] || echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
# The bridge's address is fixed, since a bridge else takes the lowest of its ports', and changes it as ports come and go.
ip -batch - <<COMMANDS
link set lo up
link add br0 address 02:00:0a:4d:00:fe type bridge
addr add 10.77.0.254/24 dev br0
link set br0 up
COMMANDS
while [ $# -gt 0 ]; do
	mkdir "/run/hosts/$1"
	mount -t tmpfs -o "mode=755,size=$2" tmpfs "/run/hosts/$1"
	shift 2
done
echo up
exec cat >/dev/null
