// The catalog in Azure Database for PostgreSQL: in the network alone, TLS only, and no password but a token of Entra's.
// az deployment group create --resource-group mesh --template-file postgres.bicep --parameters subnet=… network=… identity=…
// Not run here: parsed.

@description('Its name, which is a DNS name too: no other server of Azure has it.')
param server string = 'meshfed-${uniqueString(resourceGroup().id)}'

@description('A subnet delegated to Microsoft.DBforPostgreSQL/flexibleServers, with nothing else in it.')
param subnet string

@description('The virtual network of the cluster, which is to find the server by its name.')
param network string

@description('The name of the identity of identity.bicep, in this group; it becomes the server\'s administrator.')
param identity string = 'meshfed'

@allowed(['Burstable', 'GeneralPurpose', 'MemoryOptimized'])
param tier string = 'Burstable'
param size string = 'Standard_B2s'

@description('Two servers in two zones, of which one waits; not with Burstable.')
param spare bool = false

resource who 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' existing = {
  name: identity
}

resource zone 'Microsoft.Network/privateDnsZones@2020-06-01' = {
  name: '${server}.private.postgres.database.azure.com'
  location: 'global'
}

resource found 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01' = {
  parent: zone
  name: 'meshfed'
  location: 'global'
  properties: {
    registrationEnabled: false
    virtualNetwork: { id: network }
  }
}

resource postgres 'Microsoft.DBforPostgreSQL/flexibleServers@2024-08-01' = {
  name: server
  location: resourceGroup().location
  sku: { name: size, tier: tier }
  properties: {
    version: '16'
    storage: { storageSizeGB: 32, autoGrow: 'Enabled' }
    backup: { backupRetentionDays: 14, geoRedundantBackup: 'Disabled' }
    highAvailability: { mode: spare ? 'ZoneRedundant' : 'Disabled' }
    authConfig: {
      activeDirectoryAuth: 'Enabled'
      passwordAuth: 'Disabled'
      tenantId: subscription().tenantId
    }
    network: {
      delegatedSubnetResourceId: subnet
      privateDnsZoneArmResourceId: zone.id
      publicNetworkAccess: 'Disabled'
    }
  }
  dependsOn: [found]
}

resource encrypted 'Microsoft.DBforPostgreSQL/flexibleServers/configurations@2024-08-01' = {
  parent: postgres
  name: 'require_secure_transport'
  properties: { value: 'on', source: 'user-override' }
}

resource administrator 'Microsoft.DBforPostgreSQL/flexibleServers/administrators@2024-08-01' = {
  parent: postgres
  name: who.properties.principalId
  properties: {
    principalName: identity
    principalType: 'ServicePrincipal'
    tenantId: subscription().tenantId
  }
  dependsOn: [encrypted]
}

resource database 'Microsoft.DBforPostgreSQL/flexibleServers/databases@2024-08-01' = {
  parent: postgres
  name: 'meshfed'
  properties: { charset: 'UTF8', collation: 'en_US.utf8' }
  dependsOn: [administrator]
}

@description('For the key `url` of the Secret that catalog.existingSecret names.')
output url string = 'postgresql+psycopg://${identity}@${postgres.properties.fullyQualifiedDomainName}/meshfed?sslmode=verify-full&sslrootcert=system&auth=entra'
