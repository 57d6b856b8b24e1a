"""The command line: the only place that imports Click."""

#: The variable by which a shell asks for completions, as Click derives it from the program's name.
COMPLETE_VARIABLE = "_PROMGUN_COMPLETE"
