"""The completion scripts, and the classes that answer them, where Click's own (8.5.1) fall short.

What can be completed is Click's to find: commands, options, choices, and ``shell_complete`` of our parameter types.
With Click's scripts the contract tests fail for ``--option=VALUE`` in all three shells, values and files alike, and for
``MODULE:NAME`` in bash, which cuts words at a colon. Click's script also depends on the version that printed it (fish:
8.4.0 and 8.4.2 differ), while ours are files of the package, and printing it for bash starts a bash to ask its version.

A script hands over the line up to the cursor (``COMP_LINE``), the program answers lines of ``type<TAB>value<TAB>help``.
Type ``plain`` is a completion, ``file`` and ``dir`` ask the shell for paths.
"""

from __future__ import annotations

import os
import re

from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

#: Longer help does not fit beside a completion.
HELP_WIDTH = 90
#: The characters at which bash 5.2 breaks words, if COMP_WORDBREAKS is not given.
_WORD_BREAKS = " \t\n\"'><=;|&(:"
_MARK = "\x01"

_BASH = """\
# bash completion for promgun (bash 4.4 or newer); printed by: promgun completion bash

_promgun_completion() {
    local type value program=${1/#\\~/$HOME}
    COMPREPLY=()
    while IFS=$'\\t' read -r type value; do
        case $type in
            plain) COMPREPLY+=("$value") ;;
            file) compopt -o default 2>/dev/null ;;
            dir) compopt -o dirnames 2>/dev/null ;;
        esac
    done < <(COMP_LINE=${COMP_LINE:0:COMP_POINT} COMP_WORDBREAKS=$COMP_WORDBREAKS \\
        _PROMGUN_COMPLETE=bash_complete "$program" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:.=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -o nosort -F _promgun_completion promgun
"""

_ZSH = """\
#compdef promgun
# zsh completion for promgun; printed by: promgun completion zsh

_promgun() {
    local line type value help
    local -a items
    local program=${(Q)words[1]}
    program=${~program}
    for line in "${(@f)$(COMP_LINE="${(j: :)words[1,CURRENT-1]} ${PREFIX}" \\
            _PROMGUN_COMPLETE=zsh_complete $program 2>/dev/null)}"; do
        IFS=$'\\t' read -r type value help <<< $line
        case $type in
            plain) items+=("${value//:/\\\\:}${help:+:$help}") ;;
            file) compset -P '--*='; _files; return ;;
            dir) compset -P '--*='; _files -/; return ;;
        esac
    done
    _describe -V promgun items
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _promgun "$@"
else
    compdef _promgun promgun
fi
"""

_FISH = """\
# fish completion for promgun; printed by: promgun completion fish

function __promgun_complete
    set -l token (commandline -ct)
    set -l prefix (string match -r -- '^--[^=]*=' $token)
    set -l tokens (commandline -opc)
    for line in (COMP_LINE=(commandline -cp | string collect) _PROMGUN_COMPLETE=fish_complete $tokens[1] 2>/dev/null)
        set -l field (string split -m 2 \\t -- $line)
        switch $field[1]
            case plain
                string join \\t -- $field[2..-1]
            case file
                for path in (__fish_complete_path (string replace -r -- '^--[^=]*=' '' $token))
                    echo "$prefix$path"
                end
            case dir
                for path in (__fish_complete_directories (string replace -r -- '^--[^=]*=' '' $token))
                    echo "$prefix$path"
                end
        end
    end
end

complete --command promgun --no-files --arguments '(__promgun_complete)'
"""


class _LineComplete(ShellComplete):
    """Gets the whole line and splits it into words, for every shell."""

    source_template = ""

    def source(self) -> str:
        """Give the script; it is the same however the program was called."""
        return self.source_template

    def get_completion_args(self) -> tuple[list[str], str]:
        """Split the line into the words before the cursor, without the program's name, and the one under it."""
        # The mark keeps the last word apart even when it is empty, and leaves an open quote open.
        words = split_arg_string(os.environ["COMP_LINE"] + _MARK)
        start = next((i for i, word in enumerate(words) if os.path.basename(word) == self.prog_name), 0)
        words = words[start + 1 :] or [_MARK]
        return words[:-1], words[-1].replace(_MARK, "")

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Complete as Click does, but keep the ``--option=`` before a value: shells replace the whole word."""
        items = super().get_completions(args, incomplete)
        option = re.match(r"--[^=\s]+=", incomplete)
        if option is None:
            return items
        return [CompletionItem(option[0] + item.value, item.type, item.help) for item in items]

    def format_completion(self, item: CompletionItem) -> str:
        """Write one line of the answer."""
        summary = " ".join((item.help or "").partition("  [default")[0].split())
        if len(summary) > HELP_WIDTH:
            summary = summary[: HELP_WIDTH - 1].rstrip() + "…"
        return f"{item.type}\t{item.value}\t{summary}" if summary else f"{item.type}\t{item.value}"


class _BashComplete(_LineComplete):
    """For bash, which replaces only what follows the last ``=``, ``:`` or other word break."""

    name = "bash"
    source_template = _BASH

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Complete, and leave out the part of the word that bash keeps."""
        breaks = os.environ.get("COMP_WORDBREAKS") or _WORD_BREAKS
        kept = max(incomplete.rfind(char) for char in breaks) + 1
        items = super().get_completions(args, incomplete)
        return [CompletionItem(item.value[kept:] if item.type == "plain" else item.value, item.type) for item in items]


class _ZshComplete(_LineComplete):
    name = "zsh"
    source_template = _ZSH


class _FishComplete(_LineComplete):
    name = "fish"
    source_template = _FISH


_CLASSES = (_BashComplete, _ZshComplete, _FishComplete)


def register() -> None:
    """Replace Click's classes for the three shells by ours."""
    for cls in _CLASSES:
        add_completion_class(cls)


def script(shell: str) -> str:
    """The completion script of ``shell``: bash, zsh or fish."""
    return next(cls.source_template for cls in _CLASSES if cls.name == shell)
