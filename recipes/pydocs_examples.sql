-- From the nested table of docstrings to question-and-answer examples for training.
--
-- modules: one row a module, with an array of its members (fullspan docstrings).
-- The answer is a docstring's first paragraph on one line. The same text documents several functions here and
-- there, so equal answers are one example, and the split goes by the answer: one whose hash begins with 0 (one
-- in sixteen) is held out. So no answer is trained on and held out too, however it is spaced or cased.
WITH members AS (
  SELECT
    CASE modules.module WHEN 'posix' THEN 'os' WHEN 'posixpath' THEN 'os.path' ELSE modules.module END AS module,
    m.kind, m.name, m.signature,
    trim(regexp_replace(split(m.doc, '\\n[ \\t]*\\n')[0], '\\s+', ' ')) AS answer
  FROM modules LATERAL VIEW explode(members) exploded AS m
  WHERE m.doc IS NOT NULL
    -- Not on every machine, or twice the same.
    AND NOT modules.module RLIKE '^(nt|ntpath|encodings|tkinter|turtle|distutils)([.]|$)'
),
documented AS (
  SELECT
    CASE
      WHEN kind IN ('function', 'method') THEN
        concat('What does `', if(module = 'builtins', '', concat(module, '.')), name,
               if(length(signature) <= 60, signature, '(...)'), '` do?')
      WHEN kind = 'class' THEN concat('What is the class `', if(module = 'builtins', '', concat(module, '.')), name, '`?')
      ELSE concat('What is the property `', module, '.', name, '`?')
    END AS question,
    answer,
    lower(regexp_replace(answer, '[^A-Za-z0-9]+', '')) AS letters
  FROM members
  WHERE length(answer) BETWEEN 20 AND 600 AND answer RLIKE '[A-Za-z]{3}'
),
examples AS (
  SELECT min(question) AS question, min(answer) AS answer, letters FROM documented GROUP BY letters
)
SELECT array(named_struct('role', 'user', 'content', question),
             named_struct('role', 'assistant', 'content', answer)) AS messages,
       substr(md5(letters), 1, 1) = '0' AS held_out,
       md5(letters) AS hash
FROM examples
ORDER BY hash
