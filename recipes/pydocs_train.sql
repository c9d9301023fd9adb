-- The examples to train on: all that are not held out, in the order of their hash, which mixes the modules.
SELECT messages FROM examples WHERE NOT held_out ORDER BY hash
