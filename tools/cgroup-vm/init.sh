#!/bin/busybox sh
# The first process of the virtual machine: it makes control groups, and runs the tests in each situation.

export PATH=/bin
if [ "$1" != second ]; then
    /bin/busybox --install -s /bin
    # The first file system of a kernel cannot be exchanged for another, which is what a worker does to its root
    # folder. So everything moves into a second one, as on any real system.
    mkdir /second
    mount -t tmpfs -o mode=755 second /second
    cp -a bin etc lib lib64 worker init proc sys dev tmp /second/
    exec switch_root /second /init second
fi

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t cgroup2 groups /sys/fs/cgroup
groups=/sys/fs/cgroup
echo "+memory +pids +cpu" > $groups/cgroup.subtree_control
echo "kernel $(uname -r) on $(uname -m)"

# run_scenario NAME GROUP USER EXPECTATION WORD: the tests whose names contain WORD, by USER, from a process in GROUP.
run_scenario() {
    echo "scenario $1 begins"
    run="exec su -s /bin/sh $3 -c 'exec /worker $5'"
    if VERITAS_TEST_CGROUP="$4" sh -c "echo \$\$ > $groups/$2/cgroup.procs; $run"; then
        echo "scenario $1 passed"
    else
        echo "scenario $1 failed"
    fi
}

# A service that is alone in its group, as a supervisor is under systemd with Delegate=yes.
mkdir $groups/alone
run_scenario alone alone root required ""

# The same for a user to whom the group was given.
mkdir $groups/user
chown user:user $groups/user $groups/user/cgroup.procs $groups/user/cgroup.subtree_control
run_scenario user user user required control_group

# A user whose group belongs to root.
mkdir $groups/foreign
run_scenario foreign foreign user "is not delegated" control_group

# A group that another process shares, as in a terminal.
mkdir $groups/shared
sleep 100000 &
echo $! > $groups/shared/cgroup.procs
run_scenario shared shared root "other processes share" control_group

# A group below one that has no controllers to hand on.
mkdir -p $groups/shared/below
run_scenario below shared/below root "no memory controller" control_group

# A supervisor that was executed again where an earlier one had moved itself. It removes what was left of workers.
mkdir $groups/alone/veritas-worker-1-1
run_scenario again alone/veritas-supervisor root required control_group

# A machine that systemd runs, which has not marked the group as delegated.
mkdir -p /run/systemd/system $groups/system
run_scenario system system root "is not delegated" control_group

# The same, with the mark that systemd puts on a group that it delegates.
mkdir $groups/delegated
/worker mark-delegated $groups/delegated
run_scenario delegated delegated root required control_group

# Nothing may be left of any worker.
find $groups -name 'veritas-worker-*' | sed 's/^/left over: /'
poweroff -f
