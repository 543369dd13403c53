# bash completion for warmfork(1)                                       -*- shell-script -*-

# What stands before the command to be run: its words are completed as that command's own.
_warmfork_command_start() {
    local index
    for ((index = 2; index < cword; index++)); do
        case ${words[index]} in
            --) echo $((index + 1)); return ;;
            --preload | --python | --name | --in-place-of | --backend | --template | -t) ((index++)) ;;
            -*) ;;
            *) echo "$index"; return ;;
        esac
    done
}

_warmfork_options() {
    case $1 in
        run) echo '--template --in-place-of --preload --python --learn --name --backend --explain --help' ;;
        explain) echo '--template --preload --python --learn --name --json --help' ;;
        doctor) echo '--preload --python --learn --name --json --help' ;;
        'template list') echo '--json --help' ;;
        'template show' | 'template edit') echo '--config --help' ;;
        'template '* | template) echo '--help' ;;
        log) echo '--follow --template --help' ;;
        status) echo '--user --json --metrics --help' ;;
        top) echo '--user --help' ;;
        links) echo '--json --help' ;;
        install-links) echo '--dir --help' ;;
        profile) echo '--python --preload --json --svg --least --help' ;;
        'bench serial') echo '--preload --count --json --unchecked --help' ;;
        'bench life') echo '--preload --count --rounds --json --help' ;;
        'bench concurrent') echo '--preload --count --width --json --help' ;;
        'bench resident') echo '--count --small --large --json --help' ;;
        'bench multiprocessing') echo '--preload --count --width --json --help' ;;
        'bench service') echo '--preload --count --cli --json --help' ;;
        'bench commands') echo '--only --count --cli --json --help' ;;
        'bench plot') echo '--svg --help' ;;
        bench) echo '--python --help' ;;
    esac
}

_warmfork() {
    local cur prev words cword
    _init_completion || return

    local command=${words[1]:-} start
    if ((cword == 1)); then
        COMPREPLY=($(compgen -W 'run explain doctor profile template log status top links install-links bench --help --version' -- "$cur"))
        return
    fi
    if [[ $command == run || $command == explain ]]; then
        start=$(_warmfork_command_start)
        if [[ -n $start ]]; then
            _command_offset "$start"
            return
        fi
    fi
    case $prev in
        --backend)
            COMPREPLY=($(compgen -W 'auto warm cold' -- "$cur"))
            return ;;
        --python | --in-place-of | --cli)
            COMPREPLY=($(compgen -c -- "$cur"))
            [[ $cur == */* ]] && _filedir
            return ;;
        --user)
            COMPREPLY=($(compgen -u -- "$cur"))
            return ;;
        --svg)
            _filedir svg
            return ;;
        --dir)
            _filedir -d
            return ;;
        --preload | --count | --width | --small | --large | --least)
            return ;;
    esac
    if [[ $command == install-links && $cur != -* ]]; then
        COMPREPLY=($(compgen -c -- "$cur"))
        return
    fi
    if [[ $command == template ]]; then
        if ((cword == 2)); then
            COMPREPLY=($(compgen -W 'list show start stop reload edit adopt --help' -- "$cur"))
            return
        fi
        command="template ${words[2]}"
    fi
    if [[ $command == bench ]]; then
        local index kind=
        for ((index = 2; index < cword; index++)); do
            case ${words[index]} in
                --python) ((index++)) ;;
                serial | life | concurrent | resident | multiprocessing | service | commands | plot) kind=${words[index]}; break ;;
            esac
        done
        if [[ -z $kind ]]; then
            COMPREPLY=($(compgen -W "serial life concurrent resident multiprocessing service commands plot $(_warmfork_options bench)" -- "$cur"))
            return
        fi
        if [[ $kind == plot && $cur != -* ]]; then
            _filedir json
            return
        fi
        command="bench $kind"
    fi
    COMPREPLY=($(compgen -W "$(_warmfork_options "$command")" -- "$cur"))
} &&
    complete -F _warmfork warmfork
