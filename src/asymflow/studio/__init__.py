"""Pictures over HTTP: a studio in the browser, an own API and one like OpenAI's.

One engine makes the pictures of all of them (`jobs`, `worker`), one database remembers them
(`store`). `server` puts the parts together.
"""
