"""The HTTP surface: methods, bodies, and the form of every refusal."""
