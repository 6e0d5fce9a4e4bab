"""Many files at once: which there are, where each goes, who converts them, what became of each."""
