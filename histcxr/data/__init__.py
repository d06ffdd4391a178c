"""From files to arrays and tables: folders of images, manifests, radiographs, lung masks, splits by patient."""
