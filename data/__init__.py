"""Images, masks and points: tables, formats, storage. Imports none of the other packages."""
