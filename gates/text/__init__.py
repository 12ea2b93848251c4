"""Text that is safe in its medium: terminal, HTML, Markdown, Slack."""
