# Sourced after common.sh by the commands that boot a whole Debian in a container, with systemd as PID 1.

leader=

# start_container TREE SCRATCH [OPTION OF systemd-nspawn...]: what is written to the tree there is gone in the end.
start_container() {
    local tree=$1 scratch=$2
    shift 2
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
    setsid systemd-nspawn -q -D "$tree" -M "warmfork-$$" -b --register=no --keep-unit --console=read-only \
        --volatile=overlay "$@" </dev/null >"$scratch/console" 2>&1 &
    container=$!
    until leader=$(pgrep -P $container -x systemd); do
        kill -0 $container 2>/dev/null || fail "the container does not start: $(tail -n 3 "$scratch/console")"
        sleep 0.1
    done
    until within systemctl is-system-running --wait 2>/dev/null | grep -Eq 'running|degraded'; do sleep 0.1; done
}

stop_container() {
    within systemctl poweroff >/dev/null 2>&1 || true
    wait $container || true
}

within() { nsenter -t "$leader" -a "$@"; }

# start_user NAME: an account with a manager of its own; prints its uid.
start_user() {
    local user
    within useradd -m "$1"
    within loginctl enable-linger "$1"
    user=$(within id -u "$1")
    until within systemctl is-active -q "user@$user.service"; do sleep 0.1; done
    echo "$user"
}
