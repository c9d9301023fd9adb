"""Small trainable parts that are put into a model by module name and merged back out."""
