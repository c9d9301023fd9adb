-- The examples that are measured, never trained on (pydocs_examples.sql tells which).
SELECT messages FROM examples WHERE held_out ORDER BY hash
