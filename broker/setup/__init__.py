"""What `tokenbroker init` does: folder, configuration, keys, database, first admin. Every step may be repeated.

`layout` says where things are, `config_file` writes the configuration, `founding` makes the cluster's root and pins it,
`first_admin` lets the first operator in, `initialising` goes through all of them in an order that a crash cannot spoil.
"""
