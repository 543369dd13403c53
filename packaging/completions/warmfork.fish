# fish completion for warmfork(1)

function __warmfork_command
    set -l words (commandline -opc)
    test (count $words) -ge 2; and contains -- $words[2] $argv
end

function __warmfork_template
    __warmfork_command template; and __fish_seen_subcommand_from $argv
end

function __warmfork_bench
    __warmfork_command bench; and __fish_seen_subcommand_from $argv
end

complete -c warmfork -n __fish_use_subcommand -f
complete -c warmfork -n __fish_use_subcommand -l version -d 'Print the version'
complete -c warmfork -s h -l help -d 'Print what there is'
complete -c warmfork -n __fish_use_subcommand -a run -d 'Open a template, spawn one command from it'
complete -c warmfork -n __fish_use_subcommand -a explain -d 'Say whether a command would be warm, and why'
complete -c warmfork -n __fish_use_subcommand -a doctor -d 'Show what the fork-safety gate sees'
complete -c warmfork -n __fish_use_subcommand -a profile -d 'Show what imports cost'
complete -c warmfork -n __fish_use_subcommand -a template -d "The service's templates"
complete -c warmfork -n __fish_use_subcommand -a log -d 'What the service has logged'
complete -c warmfork -n __fish_use_subcommand -a status -d 'Show the daemon, once'
complete -c warmfork -n __fish_use_subcommand -a top -d 'Show the templates, each second'
complete -c warmfork -n __fish_use_subcommand -a links -d 'The links, and how often they were warm'
complete -c warmfork -n __fish_use_subcommand -a install-links -d 'Make links in front of commands'
complete -c warmfork -n __fish_use_subcommand -a bench -d 'Measure spawns'

complete -c warmfork -n '__warmfork_command run explain doctor profile' -l preload -x -d 'Modules to import'
complete -c warmfork -n '__warmfork_command run explain doctor profile' -l python -r -d 'The interpreter'
complete -c warmfork -n '__warmfork_command run explain doctor' -l learn -d 'Preload what most children import'
complete -c warmfork -n '__warmfork_command run explain doctor' -l name -rF -d 'The program that is learned from'
complete -c warmfork -n '__warmfork_command run' -l in-place-of -r -d 'What to become where it is not warm'
complete -c warmfork -n '__warmfork_command run' -l backend -x -a 'auto warm cold' -d 'Which way to start'
complete -c warmfork -n '__warmfork_command run' -l explain -d 'Say which backend served, and why'
complete -c warmfork -n '__warmfork_command explain doctor profile status links' -l json -d 'Print JSON'
complete -c warmfork -n '__warmfork_command run explain log' -s t -l template -x -d 'A template of the service'
complete -c warmfork -n '__warmfork_command log' -s f -l follow -d 'Go on with what comes'
complete -c warmfork -n '__warmfork_command template; and not __fish_seen_subcommand_from list show start stop reload edit adopt' \
    -f -a 'list show start stop reload edit adopt'
complete -c warmfork -n '__warmfork_template list' -l json -d 'Print JSON'
complete -c warmfork -n '__warmfork_template show edit' -l config -x -a '(__fish_complete_directories)' -d 'Its directory'
complete -c warmfork -n '__warmfork_command status top' -l user -x -a '(__fish_complete_users)' -d 'The daemon of this user'
complete -c warmfork -n '__warmfork_command status' -l metrics -d 'Print the format of Prometheus'
complete -c warmfork -n '__warmfork_command install-links' -l dir -x -a '(__fish_complete_directories)' -d 'Where'
complete -c warmfork -n '__warmfork_command install-links' -xa '(__fish_complete_command)'
complete -c warmfork -n '__warmfork_command profile' -l svg -r -d 'Write a flame graph'
complete -c warmfork -n '__warmfork_command profile' -l least -x -d 'Leave out what took less, in ms'
complete -c warmfork -n '__warmfork_command run explain' -xa '(__fish_complete_subcommand --fcs-skip=2)'

complete -c warmfork -n '__warmfork_command bench; and not __fish_seen_subcommand_from serial life concurrent resident multiprocessing service commands plot' \
    -f -a 'serial life concurrent resident multiprocessing service commands plot'
complete -c warmfork -n '__warmfork_command bench; and not __fish_seen_subcommand_from serial life concurrent resident multiprocessing service commands plot' \
    -l python -r -d 'The interpreter'
complete -c warmfork -n '__warmfork_bench serial life concurrent multiprocessing service' -l preload -x -d 'Modules to preload'
complete -c warmfork -n '__warmfork_bench serial life concurrent resident multiprocessing service commands' -l count -x -d 'How often'
complete -c warmfork -n '__warmfork_bench serial life concurrent resident multiprocessing service commands' -l json -d 'Print JSON'
complete -c warmfork -n '__warmfork_bench serial' -l unchecked -d 'Also without the checks'
complete -c warmfork -n '__warmfork_bench life' -l rounds -x -d 'Rounds'
complete -c warmfork -n '__warmfork_bench concurrent multiprocessing' -l width -x -d 'Children at once'
complete -c warmfork -n '__warmfork_bench service commands' -l cli -r -d 'The command line to measure'
complete -c warmfork -n '__warmfork_bench commands' -l only -x -d 'Tools to measure'
complete -c warmfork -n '__warmfork_bench resident' -l small -x -d 'Megabytes'
complete -c warmfork -n '__warmfork_bench resident' -l large -x -d 'Megabytes'
complete -c warmfork -n '__warmfork_bench plot' -l svg -r -d 'Where to write the drawing'
complete -c warmfork -n '__warmfork_bench plot' -F
