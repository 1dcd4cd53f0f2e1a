from pysyncobj.syncobj import SyncObj as SyncObj
from pysyncobj.syncobj import SyncObjConf as SyncObjConf
