"""A CSV file as pandas reads it, as JSON: frame.py FILE. Missing values are null."""
import json
import sys

import pandas

frame = pandas.read_csv(sys.argv[1])
json.dump(
    {
        "types": {name: str(frame[name].dtype) for name in frame},
        "rows": [
            [None if pandas.isna(value) else value for value in row]
            for row in frame.astype(object).itertuples(index=False)
        ],
    },
    sys.stdout,
)
