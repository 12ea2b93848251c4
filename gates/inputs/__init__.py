"""Input from people and the target: variables, options, YAML and foreign values, each read strictly."""
