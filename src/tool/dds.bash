# bash completion for dds                                                     -*- shell-script -*-

# The options of each command; the tests hold them to what `dds COMMAND --help` says.
_dds() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command='' words
  if ((COMP_CWORD > 1)); then command=${COMP_WORDS[1]}; fi
  case $command:$previous in
    read:--side) words='activation input fisher' ;;
    read:--likelihood | llc:--likelihood) words='categorical bernoulli gaussian' ;;
    llc:--kind) words='plain tilted' ;;
    export:--to) words='csv jsonl tensorboard' ;;
    report:--format) words='svg png' ;;
    *:--out | *:--figures | llc:--model | llc:--data)
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      return
      ;;
    *)
      case $command in
        attach) words='--out --every --layers --max-rows --stop-after --torch --snapshots --quiet --list' ;;
        read)
          words='--likelihood --input --targets --layers --side --out --step --spectra --empirical --draws --batch-size
            --max-rows --seed --own-dtype'
          ;;
        llc)
          words='--model --data --likelihood --input --targets --kind --settle --batch-size --steps --every --parameters --max-seconds
            --max-gradients --seed --out --read'
          ;;
        report) words='--out --figures --format --overwrite' ;;
        compare) words='--step' ;;
        watch) words='--interval --once' ;;
        lambda) words='regular crossing reduced-rank linear --density --rank' ;;
        export) words='--to --out --overwrite' ;;
        *) words='attach read llc report compare watch lambda export --version' ;;
      esac
      words+=' --help'
      ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  # What is no option is a file or a folder.
  if [[ $current != -* && -n $command && $command != lambda && $words == *--help ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}
complete -o filenames -F _dds dds
