"""The roles: one package for each thing that can be switched on or off on a host.

`<role>/model.py` holds typed settings and imports values only; `<role>/deploy.py` says which files, packages
and units follow from them. `host.py` is the sum of all settings, `prerequisites.py` what a host must have,
`target.py` the host that deploy.py is being executed for.
"""
