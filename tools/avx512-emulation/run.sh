#!/usr/bin/env bash
# Runs an x86-64 Linux program that uses AVX-512 on a machine without AVX-512.
# README.md beside this file says how, how fast, and what it cannot do.

set -euo pipefail

usage() {
    cat <<'EOF'
usage: run.sh [OPTIONS] BINARY [ARGS...]

Runs BINARY in an emulated machine whose processor has AVX-512, prints what it
prints, and exits with its exit code (128 + N where signal N ended it). Exits
with 125 where the emulator itself failed, and 124 where time ran out.

  --cache FOLDER    where the built emulator and kernel are kept
                    (default: $HOME/.cache/veritas-avx512)
  --timeout SECONDS how long the emulated machine may run, in real time
                    (default: 1800)
  --memory MIB      the emulated machine's memory (default: 1024)
  --model NAME      the emulated processor (default: sapphire_rapids)
  --include PATH    also carry this file or folder, at the same path; may be
                    given several times
  --env NAME=VALUE  set a variable for BINARY; may be given several times.
                    Only PATH, HOME and these are set
  --directory PATH  the folder BINARY starts in (default: /)
  --keep-symbols    carry BINARY as it is; otherwise its debug information is
                    left out, to shorten the start
  --verbose         say what is being done and how long it took
EOF
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${HOME:-/root}/.cache/veritas-avx512
timeout=1800
memory=1024
model=sapphire_rapids
directory=/
keep_symbols=false
verbose=false
includes=()
environment=(PATH=/usr/bin:/bin HOME=/tmp)

# Only messages from this script begin like this, so that they cannot be taken
# for the program's own output.
say() { printf 'avx512-emulation: %s\n' "$*" >&2; }
note() { if $verbose; then say "$@"; fi; }
fail() {
    say "emulator failure: $*"
    exit 125
}

while (($#)); do
    case $1 in
    --cache | --timeout | --memory | --model | --include | --env | --directory)
        (($# >= 2)) || fail "$1 needs a value"
        case $1 in
        --cache) cache=$2 ;;
        --timeout) timeout=$2 ;;
        --memory) memory=$2 ;;
        --model) model=$2 ;;
        --include) includes+=("$(realpath -s -- "$2")") ;;
        --env) environment+=("$2") ;;
        --directory) directory=$2 ;;
        esac
        shift 2
        ;;
    --keep-symbols) keep_symbols=true && shift ;;
    --verbose) verbose=true && shift ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    -*) usage >&2 && fail "unknown option $1" ;;
    *) break ;;
    esac
done
(($#)) || { usage >&2 && fail "no BINARY given"; }
binary=$1
[[ -f $binary && -x $binary ]] || fail "$binary is not an executable file"
binary=$(realpath -- "$binary")

# The Bochs that this was tried with, from Debian trixie. Bookworm's own package
# (2.7) has no processor with BF16, and newer packages need a newer glibc.
bochs_version=3.0
bochs_source=bochs_3.0+dfsg.orig.tar.xz
bochs_url=http://deb.debian.org/debian/pool/main/b/bochs/$bochs_source
bochs_sha256=78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b

bios=/usr/share/bochs/BIOS-bochs-latest
vgabios=/usr/share/vgabios/vgabios.bin
isolinux=/usr/lib/ISOLINUX/isolinux.bin
ldlinux=/usr/lib/syslinux/modules/bios/ldlinux.c32

# Installs the Debian packages that are not installed yet.
install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    [[ $(id -u) == 0 ]] || fail "these packages are missing, and only root can install them: ${missing[*]}"
    note "installing ${missing[*]}"
    {
        apt-get update && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y --no-install-recommends "${missing[@]}"
    } >"$cache/apt.log" 2>&1 || fail "apt could not install ${missing[*]}; see $cache/apt.log"
}

# Builds Bochs with AVX-512 and without a display. The result is moved into
# place only when it is complete.
build_bochs() {
    [[ -x $cache/bochs-$bochs_version ]] && return
    note "building Bochs $bochs_version (some minutes, once)"
    install_packages ca-certificates curl g++ make xz-utils
    local work
    work=$(mktemp -d "$cache/build.XXXXXX")
    (
        cd "$work"
        curl -fsSL --retry 3 -o "$bochs_source" "$bochs_url"
        echo "$bochs_sha256  $bochs_source" | sha256sum -c -
        tar xf "$bochs_source" --strip-components=1
        # In 3.0, VCVTNE2PS2BF16 reads past the end of its first operand; the
        # second line fails where the first found nothing to mend.
        sed -i 's/bfloat16(op1.vmm32u(n))/bfloat16(op1.vmm32u(n - DWORD_ELEMENTS(len)))/' cpu/avx/avx512_bf16.cc
        grep -q 'op1.vmm32u(n - DWORD_ELEMENTS(len))' cpu/avx/avx512_bf16.cc
        CFLAGS=-O2 CXXFLAGS=-O2 ./configure --enable-x86-64 --enable-cpu-level=6 \
            --enable-avx --enable-evex --enable-amx --enable-protection-keys \
            --enable-all-optimizations --disable-logging --disable-stats \
            --disable-show-ips --disable-docbook --disable-xpm --with-nogui
        nice -n 10 make -j"$(nproc)"
        strip bochs
        mv bochs "$cache/bochs-$bochs_version"
    ) >"$cache/bochs-build.log" 2>&1 || fail "Bochs did not build; see $cache/bochs-build.log"
    rm -rf "$work"
}

# Builds the smallest kernel that can run a test program. A distribution's own
# kernel works too, but takes far longer to unpack and start when emulated.
build_kernel() {
    # The name holds a digest of the options: other options, another kernel.
    kernel=$cache/kernel-$(sha256sum "$here/kernel.config" | cut -c1-16)
    [[ -f $kernel ]] && return
    note "building a kernel (some minutes, once)"
    install_packages bc bison flex gcc libc6-dev libelf-dev lz4 make linux-source xz-utils
    local work source
    work=$(mktemp -d "$cache/build.XXXXXX")
    source=$(find /usr/src -maxdepth 1 -name 'linux-source-*.tar.xz' | sort -V | tail -n 1)
    (
        cd "$work"
        tar xf "$source" --strip-components=1
        make tinyconfig
        scripts/kconfig/merge_config.sh -m .config "$here/kernel.config"
        make olddefconfig
        nice -n 10 make -j"$(nproc)" bzImage
        mv arch/x86/boot/bzImage "$kernel"
    ) >"$cache/kernel-build.log" 2>&1 || fail "the kernel did not build; see $cache/kernel-build.log"
    rm -rf "$work"
}

# Builds the program that runs first in the emulated machine.
build_init() {
    init=$cache/init-$(sha256sum "$here/init.c" | cut -c1-16)
    [[ -x $init ]] && return
    install_packages gcc libc6-dev
    gcc -O2 -Wall -static -o "$init.part" "$here/init.c" || fail "init.c did not compile"
    mv "$init.part" "$init"
}

mkdir -p "$cache"
cache=$(realpath -- "$cache")
# One build at a time: a second run waits here for the first one's result.
exec {lock}>"$cache/lock"
flock "$lock"
install_packages binutils bochsbios cpio isolinux syslinux-common vgabios xorriso
build_bochs
build_kernel
build_init
exec {lock}>&-

work=$(mktemp -d "${TMPDIR:-/tmp}/avx512-emulation.XXXXXX")
emulator=
clean_up() {
    if [[ -n $emulator ]]; then
        kill -KILL "$emulator" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The file system: the first program, BINARY, the libraries it is linked to,
# and what the caller asked for. Libraries keep their paths, so that the
# loader named in BINARY finds them as it does here.
root=$work/root
mkdir -p "$root/.run" "$root/tmp" "$root/$directory"
cp "$init" "$root/init"
if $keep_symbols || ! strip --strip-debug -o "$root/.run/program" "$binary" 2>/dev/null; then
    cp "$binary" "$root/.run/program"
fi
chmod 755 "$root/.run/program"
carry() {
    mkdir -p "$root/$(dirname "$1")"
    cp -aL "$1" "$root/$1"
}
# ldd prints "name => /path (address)" or "/path (address)"; it fails for a
# static program, which then has nothing to carry.
if libraries=$(ldd "$binary" 2>/dev/null); then
    if grep -q 'not found' <<<"$libraries"; then
        fail "a library is missing here: $(grep 'not found' <<<"$libraries")"
    fi
    while read -r library; do
        carry "$library"
    done < <(grep -oE '/[^ ]+ \(0x' <<<"$libraries" | sed 's/ (0x$//' | sort -u)
fi
for path in "${includes[@]}"; do
    [[ -e $path ]] || fail "$path does not exist"
    carry "$path"
done
printf '%s\0' "$directory" >"$root/.run/directory"
printf '%s\0' "${environment[@]}" >"$root/.run/environment"
printf '%s\0' "$binary" "${@:2}" >"$root/.run/arguments"

# The number of instructions that count as one emulated second. It is low, so
# that waiting for a serial port or a timer costs few instructions.
ips=20000000

# The CD. The file system travels uncompressed, since unpacking is emulated.
mkdir -p "$work/iso"
cp "$isolinux" "$ldlinux" "$work/iso/"
cp "$kernel" "$work/iso/kernel"
(cd "$root" && find . | cpio --quiet -o -H newc) >"$work/iso/files"
# "lpj" spares the kernel a measurement; "tsc_early_khz" says how fast the clock
# register really runs here, where the processor claims its model's own speed;
# "idle=halt" lets the emulator skip idle time; "clearcpuid" hides fast short
# string moves (580), because this kernel's memmove breaks where a processor has
# those but has not switched on fast long ones, as here.
cat >"$work/iso/isolinux.cfg" <<EOF
prompt 0
timeout 0
default run
label run
  kernel /kernel
  append initrd=/files console=ttyS0,115200 quiet idle=halt lpj=$((ips / 250)) tsc=reliable tsc_early_khz=$((ips / 1000)) nokaslr random.trust_cpu=1 clearcpuid=580 rdinit=/init
EOF
xorriso -as mkisofs -quiet -o "$work/boot.iso" -b isolinux.bin -c boot.cat \
    -no-emul-boot -boot-load-size 4 -boot-info-table "$work/iso" 2>"$work/iso.log" ||
    fail "the CD could not be made: $(cat "$work/iso.log")"
rm -rf "$root" "$work/iso"

sed -e "s|@WORK@|$work|g" -e "s|@BIOS@|$bios|" -e "s|@VGABIOS@|$vgabios|" \
    -e "s|@MODEL@|$model|" -e "s|@IPS@|$ips|" -e "s|@MEMORY@|$memory|g" \
    "$here/bochsrc.in" >"$work/bochsrc"
touch "$work/stdout" "$work/stderr" "$work/report" "$work/console"

note "starting the emulated machine"
began=$SECONDS
"$cache/bochs-$bochs_version" -q -f "$work/bochsrc" </dev/null >"$work/bochs.out" 2>&1 &
emulator=$!
# Show the output as it comes. With --pid, tail ends by itself once the
# emulator has ended and everything it wrote has been shown.
tail -q -c +1 -f -s 0.2 --pid="$emulator" "$work/stdout" &
tail_stdout=$!
tail -q -c +1 -f -s 0.2 --pid="$emulator" "$work/stderr" >&2 &
tail_stderr=$!
timed_out=false
while kill -0 "$emulator" 2>/dev/null; do
    if ((SECONDS - began >= timeout)); then
        timed_out=true
        kill -KILL "$emulator" 2>/dev/null || true
        break
    fi
    # A kernel that has panicked only waits; there is nothing to wait for.
    if grep -q 'Kernel panic' "$work/console"; then
        kill -KILL "$emulator" 2>/dev/null || true
        break
    fi
    sleep 0.2
done
wait "$emulator" 2>/dev/null || true
emulator=
wait "$tail_stdout" "$tail_stderr" || true
if $timed_out; then
    say "timeout: the emulated machine was stopped after $timeout seconds"
    exit 124
fi
note "the emulated machine ran for $((SECONDS - began)) seconds"

# The report is the only word on how the program ended; without it the machine
# stopped for a reason of its own.
if code=$(grep -oP '^exit: \K[0-9]+' "$work/report"); then
    exit "$code"
elif signal=$(grep -oP '^signal: \K[0-9]+' "$work/report"); then
    say "the program was ended by signal $signal ($(kill -l "$signal" 2>/dev/null || echo unknown))"
    exit $((128 + signal))
fi
{
    echo "-- report --" && cat "$work/report"
    echo "-- kernel console, its end --" && tail -n 40 "$work/console"
    echo "-- Bochs --" && tail -n 20 "$work/bochs.out"
} >&2
fail "the emulated machine ended without a report of how the program ended"
