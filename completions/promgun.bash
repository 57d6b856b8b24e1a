# bash completion for promgun (bash 4.4 or newer); printed by: promgun completion bash

_promgun_completion() {
    local type value program=${1/#\~/$HOME}
    COMPREPLY=()
    while IFS=$'\t' read -r type value; do
        case $type in
            plain) COMPREPLY+=("$value") ;;
            file) compopt -o default 2>/dev/null ;;
            dir) compopt -o dirnames 2>/dev/null ;;
        esac
    done < <(COMP_LINE=${COMP_LINE:0:COMP_POINT} COMP_WORDBREAKS=$COMP_WORDBREAKS \
        _PROMGUN_COMPLETE=bash_complete "$program" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:.=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -o nosort -F _promgun_completion promgun
