# fish completion for promgun; printed by: promgun completion fish

function __promgun_complete
    set -l token (commandline -ct)
    set -l prefix (string match -r -- '^--[^=]*=' $token)
    set -l tokens (commandline -opc)
    for line in (COMP_LINE=(commandline -cp | string collect) _PROMGUN_COMPLETE=fish_complete $tokens[1] 2>/dev/null)
        set -l field (string split -m 2 \t -- $line)
        switch $field[1]
            case plain
                string join \t -- $field[2..-1]
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
