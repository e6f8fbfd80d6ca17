/** virtio-balloon and what it stands on, in the order in which they must be inserted. */
export const MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'virtio_balloon',
] as const;

/** The random file of the initramfs; the guest's memory is filled with copies of it. */
export const RANDOM_MIB = 4;

/** The fill is verified in this many turns, so that a check takes a fraction of a second and a few checks see all of it. */
export const CHECK_TURNS = 4;

/** A check comes after so many ticks. */
export const CHECK_INTERVAL = 5;

/** Names under which the kernel's command line passes these sizes to /init, which finds them in its environment. */
export const FILL_VARIABLE = 'ballast_fill_mib';
export const STALE_VARIABLE = 'ballast_stale_mib';
export const CHURN_VARIABLE = 'ballast_churn_mib';

/**
 * The guest's only program. It says on the serial console:
 *
 *     filled 128      the fill is in memory, with its checksums; what was to be stale is written and free again
 *     tick 1          about ten times a second, for ever
 *     …
 *     churn BAD       never, unless memory that is written all the time is not what was written
 *     sum OK 0        at each fifth tick: a quarter of the fill, the turns 0 to 3 over and over; `sum BAD 0` where it differs
 *
 * Each copy of the random file is preceded by a header of another length: so no two pages are alike, and a page that
 * lands in the place of another one shows.
 */
export const INIT_SCRIPT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /mem /sums
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=100% mem /mem
# Only an emergency may break into our lines.
dmesg -n 1
# The end of /init is a panic, which ends QEMU.
fail() { echo "init: $1"; exit 1; }
for module in ${MODULES.join(' ')}; do
  insmod /modules/$module.ko || fail "cannot insert $module"
done

cd /mem
pieces=$((${FILL_VARIABLE} / ${RANDOM_MIB}))
piece=0
while [ $piece -lt $pieces ]; do
  printf '%0*d' $((piece * 8 + 8)) $piece > $piece
  cat /random >> $piece || fail "no room for the fill"
  md5sum $piece >> /sums/$((piece % ${CHECK_TURNS}))
  piece=$((piece + 1))
done
# Memory that was used once and is free now: the host still holds its bytes, until a balloon takes them.
copies=$((${STALE_VARIABLE} / ${RANDOM_MIB}))
while [ $copies -gt 0 ]; do
  cat /random >> /mem/stale || fail "no room for what shall be stale"
  copies=$((copies - 1))
done
rm -f /mem/stale
echo "filled $${FILL_VARIABLE}"

# Memory that is written all the time, and looked at each time.
churn() {
  count=0
  while :; do
    count=$((count + 1))
    copies=$((${CHURN_VARIABLE} / ${RANDOM_MIB}))
    printf '%0*d' $((count % 4096 + 1)) $count > /mem/churn
    while [ $copies -gt 0 ]; do
      cat /random >> /mem/churn
      copies=$((copies - 1))
    done
    [ $((count % 4)) -ne 0 ] || [ "$(md5sum < /mem/churn)" = "$(md5sum < /mem/churn)" ] || echo "churn BAD"
  done
}
[ $${CHURN_VARIABLE} -eq 0 ] || churn &

tick=0
turn=0
while :; do
  tick=$((tick + 1))
  echo "tick $tick"
  if [ $((tick % ${CHECK_INTERVAL})) -eq 0 ]; then
    if md5sum -c -s /sums/$turn; then echo "sum OK $turn"; else echo "sum BAD $turn"; fi
    turn=$(((turn + 1) % ${CHECK_TURNS}))
  fi
  usleep 100000
done
`;
