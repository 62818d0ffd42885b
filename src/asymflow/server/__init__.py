"""Pictures over HTTP: a studio in the browser, our own API and one like OpenAI's.

One manager has the jobs of all of them (`jobs`, `manager`), one thread draws them (`worker`), one
database remembers them (`store`). `app` puts the parts together.
"""
