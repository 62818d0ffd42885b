"""Pictures over HTTP: a studio in the browser, our own API and one like OpenAI's.

One manager has the jobs of all of them (`jobs`, `manager`), one worker runs them (`worker`), one
database stores them (`store`). `app` assembles the parts.
"""
