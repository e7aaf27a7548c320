#!/usr/bin/env bash
# Runs the sandbox's tests in a virtual machine that has control groups of version 2.
# README.md beside this file says what is run and what it needs.

set -euo pipefail

usage() {
    cat <<'EOF'
usage: run.sh [--arch x86_64|aarch64] [--cache FOLDER] BINARY

BINARY is the test program: `cargo test -p veritas-sandbox --test worker --no-run` says where it is.
Exits with 0 if every scenario passes.
EOF
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${HOME:-/root}/.cache/veritas-cgroup-vm
arch=x86_64
binary=
while (($#)); do
    case $1 in
    --arch) arch=$2; shift 2 ;;
    --cache) cache=$2; shift 2 ;;
    --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) binary=$1; shift ;;
    esac
done
[[ -f $binary ]] || { usage >&2; exit 2; }

case $arch in
x86_64)
    debian=amd64 libraries=/ loader=/lib64/ld-linux-x86-64.so.2
    emulator=(qemu-system-x86_64 -cpu max -append "console=ttyS0 quiet panic=-1") ;;
aarch64)
    debian=arm64 libraries=/usr/aarch64-linux-gnu loader=/lib/ld-linux-aarch64.so.1
    emulator=(qemu-system-aarch64 -machine virt -cpu max -append "console=ttyAMA0 quiet panic=-1") ;;
*) usage >&2; exit 2 ;;
esac
command -v "${emulator[0]}" cpio > /dev/null || { echo "run.sh: ${emulator[0]} and cpio are needed" >&2; exit 2; }

# The kernel and busybox are Debian's own packages, unpacked into the cache and not installed.
packages=$cache/$debian
if [[ ! -f $packages/done ]]; then
    mkdir -p "$packages"/{lists/partial,archives/partial,unpacked}
    : > "$packages/status"
    apt=(apt-get -qq -o APT::Architecture="$debian" -o APT::Architectures="$debian" -o Dir::State="$packages"
        -o Dir::State::status="$packages/status" -o Dir::Cache="$packages" -o APT::Sandbox::User=root)
    "${apt[@]}" update
    kernel=$(apt-cache -o APT::Architecture="$debian" -o APT::Architectures="$debian" -o Dir::State="$packages" \
        -o Dir::State::status="$packages/status" -o Dir::Cache="$packages" depends "linux-image-cloud-$debian" |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    (cd "$packages" && "${apt[@]}" download "$kernel" busybox-static)
    for package in "$packages"/*.deb; do dpkg-deb -x "$package" "$packages/unpacked"; done
    touch "$packages/done"
fi
kernel=$(echo "$packages"/unpacked/boot/vmlinuz-*)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,proc,sys,dev,tmp,etc,lib,lib64}
cp "$packages/unpacked/bin/busybox" "$root/bin/"
cp "$here/init.sh" "$root/init"
printf '%s\n' 'root:x:0:0::/:/bin/sh' 'user:x:1000:1000::/:/bin/sh' > "$root/etc/passwd"
printf '%s\n' 'root:x:0:' 'user:x:1000:' > "$root/etc/group"
cp "$binary" "$root/worker"
strip=strip
[[ $arch == aarch64 ]] && strip=aarch64-linux-gnu-strip
"$strip" --strip-debug "$root/worker"
chmod 755 "$root/init" "$root/worker"
# The C library and the compiler's, which are all that a Rust program is linked to.
for name in "$loader" $(objdump -p "$binary" | sed -n 's/^ *NEEDED *//p'); do
    # Folders that are missing, or lead in circles, make `find` fail although it finds.
    found=$(find -L "$libraries"/lib "$libraries"/lib64 -name "$(basename "$name")" -print -quit 2> /dev/null || true)
    [[ -n $found ]] || { echo "run.sh: the library $name is missing" >&2; exit 2; }
    cp -L "$found" "$root/lib/"
done
cp -L "$root/lib/$(basename "$loader")" "$root$loader" 2> /dev/null || true
(cd "$root" && find . -print0 | cpio --quiet --null -o -H newc) | gzip -1 > "$work/initramfs"

timeout 1800 "${emulator[@]}" -kernel "$kernel" -initrd "$work/initramfs" -m 1536 -nographic -no-reboot \
    -nic none < /dev/null | sed -u 's/\r//' | tee "$work/output"
n_passed=$(grep -c '^scenario [a-z-]* passed$' "$work/output" || true)
n_scenarios=$(grep -c '^run_scenario ' "$here/init.sh")
echo "$n_passed of $n_scenarios scenarios passed"
[[ $n_passed == "$n_scenarios" ]] && ! grep -q '^left over: ' "$work/output"
