from __future__ import annotations
import time
import pytest
import psycopg
from flows.ingest import ingest
from tests.flows.estates import Declared
from tests.flows.server import Prefect
from tests.servers import Running

pytestmark = pytest.mark.servers

def test_a(declared: Declared, prefect: Prefect, postgres: Running) -> None:
    with psycopg.connect(postgres.url, password=postgres.password, autocommit=True) as c:
        c.execute("create table public.t1 as select g::bigint as id, 'x' as v from generate_series(1,1000) g")
    declared.add("t1", {"kind": "database", "site": "idc", "database": "business", "table": "public.t1"},
      mode="merge", key=["id"])
    for i in range(3):
        b=time.time()
        print(ingest(str(declared), "t1"))
        print("took", time.time()-b)
    print(prefect.events("prefect.asset", f"s3://{declared.bucket}/t1"))
    print(prefect.artifacts("load-t1"))
    r = prefect.last_run()
    print(r["id"], r["name"], r["state"]["name"])
    print(prefect.logs(r["id"]))
