"""A replay: its limits, its selection of items, its dry run and its life."""
