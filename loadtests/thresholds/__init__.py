"""The threshold language of k6: files, expressions, keys, and what each comes to."""
