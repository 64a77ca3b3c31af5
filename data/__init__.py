"""What images, masks and points are: tables, formats, storage. Imports no other package of ours."""
