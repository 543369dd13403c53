# Sourced after common.sh and container.sh by the commands that see the service under a systemd that is PID 1:
# check-service from beside the container, check-kernel-inside from within the machine. It uses within, $scratch and
# start_user of whoever sources it.

# Installs the build of $build below $scratch/install, and the client that does as it is told.
install_build() {
    DESTDIR=$scratch/install cmake --install "$build" --prefix /usr >"$scratch/installed" ||
        fail "cmake --install failed: build everything first"
    local library
    library=$(find "$scratch/install" -name libwarmfork.so)
    cc -Wall -o "$scratch/install/usr/bin/check-client" "$root/tests/system/container/client.c" \
        -I"$root/shim/include" "$library" -Wl,-rpath,"$(dirname "${library#"$scratch/install"}")"
}

# Where the build is installed: an account, templates, and a user.
set_up_service() {
    within useradd -r -m account
    within mkdir -p /etc/warmfork/templates.d
    within tee /etc/warmfork/templates.d/numpy.toml >/dev/null <<<'python = "/usr/bin/python3"
preload = ["numpy"]'
    within tee /etc/warmfork/templates.d/limited.toml >/dev/null <<<'python = "/usr/bin/python3"
preload = ["json"]
[cgroup]
memory_max = "256M"
tasks_max = 64
cpu_weight = 50'
    within systemctl daemon-reload
    user=$(start_user alice)
    program=$(within find /usr -name warmforkd -type f)
}

# of_user COMMAND..., of_account COMMAND...: what is done with the service of each kind.
of_user() {
    kind=user service=warmforkd.service socket=warmforkd.socket whose="a user"
    "$@"
}
of_account() {
    kind=system service=warmforkd@account.service socket=warmforkd@account.socket whose="a service account"
    "$@"
}

# The manager of the user, or of the system.
manager() { if [ "$kind" = user ]; then as_alice systemctl --user "$@"; else within systemctl "$@"; fi; }
as_alice() { within runuser -u alice -- env XDG_RUNTIME_DIR="/run/user/$user" "$@"; }

ok() { printf '  ok: %s\n' "$*"; }
not_ok() { fail "$* ($kind)"; }
# until TEXT COMMAND...: for up to 20 seconds
eventually() {
    local what=$1 tries=400
    shift
    until "$@"; do
        [ $((tries -= 1)) -gt 0 ] || not_ok "$what"
        sleep 0.05
    done
    ok "$what"
}

# A client is a unit of its own, confined as the service is. start_client NAME TEMPLATE
declare -A orders=()
start_client() {
    local name=$1 run=(within systemd-run -q --pipe --collect --uid=account
        -E "WARMFORK_SOCKET=/run/warmforkd-account/socket")
    [ "$kind" = system ] || run=(as_alice systemd-run --user -q --pipe --collect)
    mkfifo "$scratch/$name.orders"
    "${run[@]}" --unit="check-$name" check-client "$2" <"$scratch/$name.orders" >"$scratch/$name.said" 2>&1 &
    exec {descriptor}>"$scratch/$name.orders"
    orders[$name]=$descriptor
}
count_said() { wc -l <"$scratch/$1.said"; }
order() { echo "$2" >&"${orders[$1]}"; }
# ask NAME ORDER: sets $said
ask() {
    local before tries=400
    before=$(count_said "$1")
    order "$1" "$2"
    until [ "$(count_said "$1")" -gt "$before" ]; do
        [ $((tries -= 1)) -gt 0 ] || not_ok "the client $1 does not answer to '$2'"
        sleep 0.05
    done
    said=$(tail -n 1 "$scratch/$1.said")
}
expect() {
    local what=$1 name=$2 what_to_do=$3 pattern=$4
    ask "$name" "$what_to_do"
    [[ $said =~ $pattern ]] || not_ok "$what: '$said' is not $pattern"
    ok "$what"
}
pid_said() { echo "$said" | cut -d' ' -f4; }

daemon() { manager show -P MainPID "$service"; }
runs() { within test -d "/proc/$1"; }
is_gone() { ! runs "$1"; }
has_new_daemon() { local now; now=$(daemon); [ "$now" != 0 ] && [ "$now" != "$1" ] && manager is-active -q "$service"; }
is_active() { [ "$(manager show -P ActiveState "$service")" = active ]; }
cgroup_of() { within sed -n 's/^0:://p' "/proc/$1/cgroup"; }
is_in_cgroup_of_client() { [[ $(cgroup_of "$1") == */$service/client-* ]]; }
# Others come and go meanwhile.
cgroups_of_clients() { within find /sys/fs/cgroup -ignore_readdir_race -type d -path "*/$service/client-*"; }
has_no_cgroups_of_clients() { [ -z "$(cgroups_of_clients)" ]; }
processes_of_service() { within pgrep -f '/libexec/warmfork|warmfork._template' || true; }
has_no_processes() { [ -z "$(processes_of_service)" ]; }
has_restarted_itself() { [ "$(within stat -L -c %i "/proc/$1/exe")" = "$(within stat -c %i "$program")" ]; }

# Through its life: started by the first client, reloaded, upgraded, killed, hung, stopped.
see_life() {
    say "The life of the service of $whose"
    # In a minute, as shipped.
    within mkdir -p "/etc/systemd/$kind/$service.d"
    within tee "/etc/systemd/$kind/$service.d/watchdog.conf" >/dev/null <<<'[Service]
WatchdogSec=5
TimeoutAbortSec=1'
    manager daemon-reload
    manager enable -q --now "$socket"
    ok "the socket listens and nothing else runs: $(processes_of_service | wc -l) processes"

    start_client one numpy
    expect "the first spawn starts the service" one "run 7" "^exited 7 "
    expect "the next is warm" one "run 3" "^exited 3 warm "
    local first
    first=$(daemon)

    expect "a child runs" one "start /tmp/go-$kind" "^started 0 warm "
    local child
    child=$(pid_said)
    eventually "it is in its client's cgroup" is_in_cgroup_of_client "$child"
    manager reload "$service"
    eventually "a reload is over" is_active
    runs "$child" || not_ok "the child has ended"
    [ "$(daemon)" = "$first" ] || not_ok "the daemon is another process after the reload"
    expect "it serves on" one "run 4" "^exited 4 "
    within cp "$program" "$program.new"
    within mv "$program.new" "$program"
    manager reload "$service"
    eventually "an upgrade is the program that runs" has_restarted_itself "$first"
    [ "$(daemon)" = "$first" ] || not_ok "the daemon is another process after the upgrade"
    within touch "/tmp/go-$kind"
    expect "the child's status is the exact one after both" one wait "^exited 23 warm $child"

    expect "a child runs" one start "^started 0 warm "
    child=$(pid_said)
    within kill -KILL "$first"
    eventually "a daemon that was killed is replaced" has_new_daemon "$first"
    runs "$child" || not_ok "the child has ended with the daemon"
    ok "its child runs on"
    expect "its client reconnects" one "run 5" "^exited 5 "
    within kill -TERM "$child"
    ask one wait
    ok "of the child's end the client is told: $said"
    expect "it is warm again" one "run 6" "^exited 6 warm "

    local second
    second=$(daemon)
    within kill -STOP "$second"
    eventually "the watchdog replaces a daemon that hangs" has_new_daemon "$second"

    start_client two limited
    expect "a child with limits" two start "^started 0 "
    child=$(pid_said)
    eventually "it is in its client's cgroup" is_in_cgroup_of_client "$child"
    expect "a child leaves a process behind" two orphan "^exited 0 "
    local orphan
    orphan=$(within pgrep -f "sleep 31536000") || not_ok "the process that was left behind does not run"
    order two quit
    eventually "its children end with a client" is_gone "$child"
    eventually "what they have left behind as well" is_gone "$orphan"
    expect "a child leaves a process behind" one orphan "^exited 0 "
    orphan=$(within pgrep -f "sleep 31536000") || not_ok "the process that was left behind does not run"
    order one quit
    eventually "no cgroup of a client is left" has_no_cgroups_of_clients
    runs "$orphan" || not_ok "what a command has left, which had ended before its client, is gone"
    ok "what was left by a command that had ended runs on"

    start_client three numpy
    expect "a child runs" three start "^started 0 "
    child=$(pid_said)
    manager stop "$socket" "$service"
    is_gone "$child" || not_ok "a child runs after the service was stopped"
    ok "stop ends children"
    order three quit
    eventually "no process is left" has_no_processes
    eventually "no cgroup is left" has_no_cgroups_of_clients
    runs "$orphan" || not_ok "what a command has left has ended with the service"
    ok "what was left runs on"
    within kill "$orphan"
    [ "$(manager show -P Result "$service")" = success ] || not_ok "the service did not end well"
    ok "it has ended well"
    orders=()
    rm -f "$scratch"/*.orders
}
