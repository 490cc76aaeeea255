# blocks.py FILE MARKER: writes the blocks of code of a document, behind "<!-- MARKER: run by a test -->" and up to the next heading
# of its kind, to 1.hcl, 2.hcl, 1.sh and so on.
import re
import sys

text = open(sys.argv[1]).read().split("<!-- " + sys.argv[2] + ": run by a test -->")[1]
if len(sys.argv) < 4:
    text = text.split("\n## ")[0]
seen = {}
for language, code in re.findall(r"```(\w+)\n(.*?)```", text, re.S):
    seen[language] = seen.get(language, 0) + 1
    open("%d.%s" % (seen[language], language), "w").write(code)
