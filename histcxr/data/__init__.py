"""From files to arrays and tables: manifests, radiographs, lung masks, folders to triage, phantoms."""
