"""How every command reads its settings: flags, environment, YAML. Knows no command by name."""
