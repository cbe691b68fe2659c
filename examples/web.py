"""Jobs beside the requests of a web service: enqueue, look, and a schedule.

pip install fastapi uvicorn
uvicorn --app-dir examples web:web
curl -X POST 'localhost:8000/primes?below=1000000'
curl localhost:8000/jobs/...
"""

from typing import Any

from fastapi import FastAPI, HTTPException

from tickwork import App
from tickwork.errors import UnknownJob

app = App()
web = FastAPI(lifespan=app.lifespan)


@app.every("10s", first="now")
async def report() -> None:
    """Say something now and then, beside the requests."""
    print(f"{len(app.running)} jobs are running", flush=True)


@app.task(run_in="process", timeout="1m")
def count_primes(below: int) -> int:
    """Count prime numbers: work that would hold up all requests, so it has a process of its own."""
    is_prime = bytearray([1]) * below
    is_prime[:2] = b"\0\0"[:below]
    for n in range(2, int(below**0.5) + 1):
        if is_prime[n]:
            is_prime[n * n :: n] = bytes(len(range(n * n, below, n)))
    return sum(is_prime)


@web.post("/primes", status_code=202)
async def start(below: int) -> dict[str, str]:
    """Enqueue a job and answer at once."""
    job = await count_primes.enqueue(below)
    return {"job": job.id}


@web.get("/jobs/{job_id}")
async def show(job_id: str) -> dict[str, Any]:
    """Tell how far a job is, and its result."""
    try:
        job = await app.job(job_id)
        record = await job.record()
    except UnknownJob as error:
        raise HTTPException(404, str(error)) from error
    return {"state": record.state, "result": await job.result() if record.state == "succeeded" else None}
