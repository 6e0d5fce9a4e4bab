"""All that is known of Keras's files: one era or container a module. Nothing here imports Keras."""
